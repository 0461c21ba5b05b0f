"""Your own CT and MR volumes, site by site: NIfTI files with labels."""
