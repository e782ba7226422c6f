"""What `sqlite_store` is made of. Everything here runs on the store's own threads, and none of it knows Trio.

`lock` who may write · `schema` the tables and how they change · `changes` the SQL of a transaction ·
`reads` the SQL of what is read back · `retention` what is forgotten · `faults` a disk's errors in words ·
`writer` all that on one connection, `reader` the reads on another.
"""
