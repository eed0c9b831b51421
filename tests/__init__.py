"""The tests: files mirror the package's modules, names are sentences somebody relies on."""
