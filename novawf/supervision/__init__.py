"""When to start a child again, as pure functions in OTP's words. Nothing here starts anything."""
