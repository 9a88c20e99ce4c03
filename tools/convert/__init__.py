"""Official data sets of people in images, as `tools/convert_records.py` reads them: one file for each."""
