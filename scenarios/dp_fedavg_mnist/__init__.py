"""FedAvg on handwritten digits with client-level privacy: what the noise costs."""
