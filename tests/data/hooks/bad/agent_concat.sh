#!/bin/sh
a=clau; b=de
$a$b -p "next"
