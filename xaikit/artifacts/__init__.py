"""What is on disk: typed records, their reading and writing."""
