"""The wire: the one room where protobuf, Flower records and arrays meet."""
