"""Reports as Markdown and HTML pages: shared style and templates, and the pages themselves."""
