"""`python -m keras_explain.cli`: the command, where its script is not on the path."""

import sys

from keras_explain.cli import main

sys.exit(main())
