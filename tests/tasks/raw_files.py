"""Classic files in miniature, two or three rows each, as the official archives write them; and their rows by hand."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

Row = dict[str, Any]

GLUE: dict[str, tuple[str, str, list[Row]]] = {
    "glue/cola": (
        "CoLA/{}.tsv",
        'gj04\t1\t\tThey drank the pub dry.\nks08\t0\t*\t"Fed" the dog.\n',
        [
            {"sentence": "They drank the pub dry.", "label": 1, "idx": 0},
            {"sentence": '"Fed" the dog.', "label": 0, "idx": 1},
        ],
    ),
    "glue/sst2": (
        "SST-2/{}.tsv",
        "sentence\tlabel\nit 's a charming journey . \t1\nunflinchingly bleak\u2028\t0\n",
        [
            {"sentence": "it 's a charming journey . ", "label": 1, "idx": 0},
            {"sentence": "unflinchingly bleak\u2028", "label": 0, "idx": 1},
        ],
    ),
    "glue/mrpc": (
        "MRPC/{}.tsv",
        "\ufeffQuality\t#1 ID\t#2 ID\t#1 String\t#2 String\n"
        '1\t1\t2\tHe said " no .\tHe refused .\n0\t3\t4\tA .\t" B " .\n',
        [
            {"sentence1": 'He said " no .', "sentence2": "He refused .", "label": 1, "idx": 0},
            {"sentence1": "A .", "sentence2": '" B " .', "label": 0, "idx": 1},
        ],
    ),
    "glue/stsb": (
        "STS-B/{}.tsv",
        "index\tgenre\tfilename\tyear\told_index\tsource1\tsource2\tsentence1\tsentence2\tscore\n"
        "0\tmain\tMSRvid\t2012test\t0000\tnone\tnone\tA man.\tA person.\t3.800\n"
        "1\tmain\tMSRvid\t2012test\t0001\tnone\tnone\tA cat.\tA tax.\t0.000\n",
        [
            {"sentence1": "A man.", "sentence2": "A person.", "label": 3.8, "idx": 0},
            {"sentence1": "A cat.", "sentence2": "A tax.", "label": 0.0, "idx": 1},
        ],
    ),
    "glue/qqp": (
        "QQP/{}.tsv",
        "id\tqid1\tqid2\tquestion1\tquestion2\tis_duplicate\n5\t1\t2\tWhat is x?\tWhat's x?\t1\n6\t3\t4\tWho?\tWhy?\t0\n",
        [
            {"question1": "What is x?", "question2": "What's x?", "label": 1, "idx": 0},
            {"question1": "Who?", "question2": "Why?", "label": 0, "idx": 1},
        ],
    ),
    "glue/mnli": (
        "MNLI/{}.tsv",
        "index\tpromptID\tpairID\tgenre\tsentence1\tsentence2\tlabel1\tgold_label\n"
        "0\t1\t1e\tfiction\tHe ran.\tHe moved.\tneutral\tentailment\n"
        "1\t2\t2n\tfiction\tNo majority.\tHere.\tneutral\t-\n"
        "2\t3\t3c\tfiction\tHe ran.\tHe slept.\tneutral\tcontradiction\n",
        [
            {"premise": "He ran.", "hypothesis": "He moved.", "label": 0, "idx": 0},
            {"premise": "He ran.", "hypothesis": "He slept.", "label": 2, "idx": 1},
        ],
    ),
    "glue/qnli": (
        "QNLI/{}.tsv",
        "index\tquestion\tsentence\tlabel\n0\tWho?\tShe did.\tentailment\n1\tWhen?\tShe did.\tnot_entailment\n",
        [
            {"question": "Who?", "sentence": "She did.", "label": 0, "idx": 0},
            {"question": "When?", "sentence": "She did.", "label": 1, "idx": 1},
        ],
    ),
    "glue/rte": (
        "RTE/{}.tsv",
        "index\tsentence1\tsentence2\tlabel\n0\tOil rose.\tOil fell.\tnot_entailment\n1\tOil rose.\tOil moved.\tentailment\n",
        [
            {"sentence1": "Oil rose.", "sentence2": "Oil fell.", "label": 1, "idx": 0},
            {"sentence1": "Oil rose.", "sentence2": "Oil moved.", "label": 0, "idx": 1},
        ],
    ),
}

SQUAD_ROWS: list[Row] = [
    {
        "id": f"{number:024x}",
        "title": title,
        "context": context,
        "question": question,
        "answers": {"text": texts, "answer_start": starts},
    }
    for number, (title, context, question, texts, starts) in enumerate(
        [
            ("Nobel", " Zoë won in 1911.", "Who won?", ["Zoë"], [1]),
            ("Nobel", " Zoë won in 1911.", "When?  ", ["1911", "in 1911"], [12, 9]),
            ("Ada", "Ada wrote \U0001f600 notes.", "What?", ["notes"], [12]),
        ]
    )
]


def squad_json(rows: list[Row] = SQUAD_ROWS) -> dict[str, Any]:
    """Rows as SQuAD's own nested form, one paragraph a row."""
    return {
        "version": "1.1",
        "data": [
            {
                "title": row["title"],
                "paragraphs": [
                    {
                        "context": row["context"],
                        "qas": [
                            {
                                "id": row["id"],
                                "question": row["question"],
                                "answers": [
                                    {"text": text, "answer_start": start}
                                    for text, start in zip(
                                        row["answers"]["text"], row["answers"]["answer_start"], strict=True
                                    )
                                ],
                            }
                        ],
                    }
                ],
            }
            for row in rows
        ],
    }


def write_squad(root: Path, rows: list[Row] = SQUAD_ROWS, files: tuple[str, ...] = ("train", "dev")) -> Path:
    """`root/squad/{train,dev}-v1.1.json`; yields the last file."""
    path = root / "squad"
    path.mkdir(parents=True, exist_ok=True)
    for name in files:
        file = path / f"{name}-v1.1.json"
        file.write_text(json.dumps(squad_json(rows)), encoding="utf-8")
    return file


def write_glue(root: Path, name: str, text: str | None = None, files: tuple[str, ...] = ()) -> Path:
    """`root/glue/TASK/*.tsv`; yields the last file."""
    pattern, content, _ = GLUE[name]
    for file in files or (("train", "dev_matched") if name == "glue/mnli" else ("train", "dev")):
        path = root / "glue" / pattern.format(file)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(content if text is None else text, encoding="utf-8", newline="")
    return path
