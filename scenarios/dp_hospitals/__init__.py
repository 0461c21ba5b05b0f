"""Four hospitals learn together to tell heart disease, each patient's record protected."""
