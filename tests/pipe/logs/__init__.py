"""Tests of how rotated logs are read: their files, names and order."""
