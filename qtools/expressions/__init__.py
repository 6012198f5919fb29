"""The filter language, a total subset of jq: text in, one Python function out.

expression.py      compile_expression, and what a compiled Expression knows of itself
tokens.py          the tokens
parser.py          text to syntax tree, or an error with the column and what was expected
syntax_tree.py     the nodes
code_generator.py  syntax tree to Python source, compiled once
functions.py       the functions and operators, each with jq's meaning
values.py          JSON values as jq sees them: kinds, text, order, and how large they may become
regex.py           patterns of test(): the part of jq's that takes linear time, run by RE2
cost.py            what an expression may cost at most, from its tree
hints.py           what to say about jq's constructs that are missing here
foreign_syntax.py  hints for the syntax of other languages
"""
