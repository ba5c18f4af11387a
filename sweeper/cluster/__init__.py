"""Where and when: nodes, admission, leases, and what happens after a death."""
