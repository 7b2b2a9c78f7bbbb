#!/bin/bash
for (( ; ; )); do echo poll; sleep 2; done
