"""`udlib grade`: runs a report of the project under hard limits, and judges the lines of the rubric that a machine can judge.

`sandbox` copies the folder of a report and runs it there, `processes` ends it at its limits, `runner` and `kernel` are the
programs that run it, `evidence` reads what it left, and `checks` judges. The code of a report never runs in the process that
grades.
"""
