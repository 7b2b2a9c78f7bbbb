"""The fleet's limits on API requests: exact windows, leases, and the queue before them."""
