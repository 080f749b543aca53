"""Wide enough that no table is cut: rich asks for the width when it is imported."""

import os

os.environ["COLUMNS"] = "200"
