.PHONY: help train test lint schema

help:
	@echo "make train   train what config.json describes"
	@echo "make test    run all tests but the long ones"
	@echo "make lint    check style and types"
	@echo "make schema  write config.schema.json anew from the settings"

train:
	python train.py -c config.json

test:
	python -m pytest

lint:
	ruff check .
	flake8 .
	mypy

schema:
	python -m utils.config.settings > config.schema.json
