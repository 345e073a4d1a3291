"""Names of the files that steps leave for each other and for people."""

from __future__ import annotations

from typing import Final

TEACHER_FILE: Final = "teacher.safetensors"
STUDENT_FILE: Final = "student.safetensors"
TRAINING_FILE: Final = "training.json"
FLOAT_FILE: Final = "float.nir"
QUANTISED_FILE: Final = "net.nir"
SEARCHED_FILE: Final = "searched.nir"
QUANTISED_STUDENT_FILE: Final = "quantised_student.safetensors"
REPORT_FILE: Final = "report.json"
HTML_FILE: Final = "report.html"
RUN_FILE: Final = "run.json"
