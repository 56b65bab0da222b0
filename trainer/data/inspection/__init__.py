"""What is in a data set, for people: profiles of columns, advice, a page of text."""
