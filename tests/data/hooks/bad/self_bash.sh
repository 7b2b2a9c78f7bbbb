#!/bin/bash
do_work
bash "$0" "$@"
