.PHONY: help train test lint schema bench

help:
	@echo "make train   train the example"
	@echo "make test    run all tests"
	@echo "make lint    check the style"
	@echo "make schema  write config.schema.json anew from the settings"
	@echo "make bench   measure against a bare loop"

train:
	python train.py -c config.json

test:
	python -m pytest

lint:
	ruff check .
	flake8 .

schema:
	python -m utils.settings > config.schema.json

bench:
	python -m benchmarks
