"""The filter language, a subset of jq in which every expression ends: text in, one Python function out.

expression.py      compile_expression, and the compiled Expression
tokens.py          the tokens
token_reader.py    the current token of a text, and its place
parser.py          text to syntax tree, or an error with the column and what was expected
syntax_tree.py     the nodes
code_generator.py  syntax tree to Python source, compiled once
functions.py       the functions and operators, each with jq's meaning
values.py          JSON values as in jq: kinds, text, order, and limits of their size
regex.py           the patterns of test(): those of jq that take linear time, run by RE2
cost.py            an upper bound of what an expression costs, from its tree
hints.py           hints for constructs of jq that this language lacks
foreign_syntax.py  hints for the syntax of other languages
"""
