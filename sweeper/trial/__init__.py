"""Inside a lease: the protocol of a launch, its windows, and the processes it lives in."""
