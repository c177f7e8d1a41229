"""Results as tables, figures, sentences and a page. Pure: what a sweep found in, text and pictures out."""
