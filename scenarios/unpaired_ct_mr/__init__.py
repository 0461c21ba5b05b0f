"""Sites that hold CT or MR volumes, never both of one patient, train one segmentation model."""
