"""Schemas: bodies of Avro, Protobuf and JSON Schema ↔ JSON values; the client of a schema registry.

contract.py      what a schema is, and what a codec does
wire_format.py   which schema a body has: Confluent's wire format
registry.py      the client of a schema registry
codecs.py        schemas to codecs, for each format; a schema in a file
decoding.py      decodes the bodies of batches; a Source that does
stale_headers.py  leaves out the header that names a schema where the body was replaced
encoding.py      encodes JSON before it is published

avro.py          Avro, by fastavro
avro_schema.py   an Avro schema, made self-contained; what could harm the decoder
avro_reader.py   decodes Avro with recursive types
plain_values.py  logical types and bytes as plain JSON
protobuf.py      Protobuf, by protobuf's own library
proto_file.py    the text of a .proto file to a descriptor
json_schema.py   JSON Schema, by jsonschema-rs
"""
