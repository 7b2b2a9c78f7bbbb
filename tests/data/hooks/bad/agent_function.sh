#!/bin/bash
ask() {
  local prompt=$1
  claude -p "$prompt" --max-turns 1
}
ask "what now"
