"""Cases from the field: what real model servers send and what real exports look like, each with the right result."""
