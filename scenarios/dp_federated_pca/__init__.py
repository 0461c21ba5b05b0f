"""Federated PCA that hides every record: noise at the site, judged on records held out."""
