claude -p next
