"""Formats of the table, one file each, registered under the suffix of their files.

A format is a class or function that takes an open binary file and the columns (name -> int or
float), and gives a `siamcal.inference.table.RowWriter`:

    @table_formats.register("tsv")
    def tsv(file: BinaryIO, columns: Mapping[str, type]) -> RowWriter: ...
"""
