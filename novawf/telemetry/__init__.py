"""What is measured and how it is shown. Telemetry fails open: nothing waits for it."""
