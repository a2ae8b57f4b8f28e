# This project with all that it needs, on a CPU. docs/container.md says how to build and run it.
# Python 3.11 is what the tests run with.
FROM python:3.11-slim

# Lines are shown as they are printed. What the hub sends is kept in the mounted folder, for the next
# run. HOME is for what libraries leave behind, because a user given by --user has no home.
ENV PYTHONUNBUFFERED=1 HF_HOME=/work/.cache/huggingface HOME=/tmp

WORKDIR /app
# Before the code, which changes more often: then the packages need not be installed again.
COPY requirements.txt requirements-extra.txt constraints.txt ./
# torch alone comes from its own index: the one of PyPI brings gigabytes for GPUs. The second line
# finds it there, and installs what it needs in fixed versions.
ARG TORCH_INDEX=https://download.pytorch.org/whl/cpu
RUN pip install --no-cache-dir --no-deps --index-url "$TORCH_INDEX" \
        "$(grep '^torch==' requirements.txt)" && \
    pip install --no-cache-dir -r requirements-extra.txt

COPY LICENSE dataset.py model.py evaluate.py finetune.py predict.py ./
COPY support support/
COPY extras extras/
# Everybody may read the code, whatever the rights of the copied files; nobody but root changes it.
RUN chmod -R a+rX . && useradd --uid 10001 app && install -d -o app /work
# A number, because Kubernetes does not believe a name that it is not root.
USER 10001

# All addresses of the container; `docker run -p` decides who outside of it can reach them.
CMD ["python", "-m", "extras.app", "--model", "/work/model", "--host", "0.0.0.0"]
EXPOSE 7860
# Without a proxy, which urllib would take from the environment: this question stays in here.
HEALTHCHECK --interval=30s --timeout=5s --start-period=60s CMD ["python", "-c", "from urllib import \
request as r; r.build_opener(r.ProxyHandler({})).open('http://127.0.0.1:7860/health', timeout=4)"]
