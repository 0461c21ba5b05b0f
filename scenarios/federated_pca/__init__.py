"""Federated PCA on the Grassmann manifold, for anomaly detection."""
