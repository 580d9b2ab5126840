"""The log format of AWS's containers."""

import logging


def configure_logger(level, format="%(asctime)s %(name)-12s %(levelname)-8s %(message)s"):
    """Sends the root logger to stderr in that format; boto's chatter is kept at INFO."""
    logging.basicConfig(format=format, level=level)
    if int(level) < logging.INFO:
        for name in ("boto3", "s3transfer", "botocore"):
            logging.getLogger(name).setLevel(logging.INFO)
