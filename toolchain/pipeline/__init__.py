"""The steps of a run and the folder they write into."""
