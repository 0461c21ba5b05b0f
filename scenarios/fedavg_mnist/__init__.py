"""FedAvg on handwritten digits: the smallest scenario to copy."""
