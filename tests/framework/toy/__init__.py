"""A project of the smallest kind, which the tests of the framework stand on."""
