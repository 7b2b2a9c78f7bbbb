"""The built-in jobs: maintenance that a Nova does inside its own process, cheap and for nothing."""
