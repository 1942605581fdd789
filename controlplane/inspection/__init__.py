"""Reading uploaded models with OpenVINO, in a child process: a hostile file takes down the child alone."""
