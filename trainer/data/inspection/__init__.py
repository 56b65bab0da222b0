"""What is in a data set, for people: profiles of columns, advice, a page of text.

Read: `inspect_data` (reads), `column_profile` (gathers), `data_report` (puts it into words).
"""
