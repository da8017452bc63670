"""ECGCLIP (arXiv 2605.25446) as far as it is known: its input and encoders are published, its pre-training is not.

    ecgclip train experiments/ecgclip.py --variant r34 --workdir runs/ecgclip_r34

Known (paper's abstract and the released prognosis code): eight leads, 0.5-100 Hz, mains notch, 400 Hz, 4096 samples,
millivolts; ResNet-34 (R18 and R50 in the code). UNKNOWN, and our choice here: the text encoder, loss details,
temperature, batch size, optimiser and schedule. Where the paper is silent MERL's settings stand, for ECGCLIP shares
its encoder with MERL line by line; the uni-modal term is off, because the abstract names only the ECG-report contrast.
"""

from ecgclip_jax.spec.encoders import BertSpec, HeadSpec, ResNet1DSpec, TokenizerSpec
from ecgclip_jax.spec.experiment import DataSpec, Experiment, MemorySpec, OptimizerSpec, RunSpec, Source
from ecgclip_jax.spec.objectives import InfoNCESpec
from ecgclip_jax.spec.signal import ecgclip
from ecgclip_jax.spec.small import demo_sized

TEXT_MODEL = "ncbi/MedCPT-Query-Encoder"


def variants() -> dict[str, Experiment]:
    """`r34` is the abstract's model; `r18` and `r50` differ in depth alone; `demo` and `smoke` are synthetic."""
    r34 = Experiment(
        name="ecgclip_r34",
        summary="ECGCLIP's input and ResNet-34 with MERL's objective",
        data=DataSpec(sources=(Source(cohort="mimic_iv_ecg"),), batch_global=1024),
        signal=ecgclip(),
        ecg_encoder=ResNet1DSpec(depth=34, dtype="bfloat16"),
        text_encoder=BertSpec(
            weights=TEXT_MODEL,
            tokenizer=TokenizerSpec(source=TEXT_MODEL, max_tokens=128),
            hidden=768,
            layers=12,
            heads=12,
            intermediate=3072,
            # A text tower at rest without dropout is run once for each distinct report.
            dropout=0.0,
            dtype="bfloat16",
        ),
        objective=InfoNCESpec(temperature=0.07, direction="sum", text_head=HeadSpec(kind="mlp", hidden=256)),
        optimizer=OptimizerSpec(
            peak_lr=2e-4, end_lr=1e-8, schedule="cosine", warmup_steps=500, weight_decay=1e-5, frozen=("^text/",)
        ),
        run=RunSpec(steps=36_000, log_every=50, checkpoint_every=1000),
        memory=MemorySpec(text_cache_dtype="bfloat16"),
    )
    smoke = Experiment(
        name="ecgclip_smoke",
        summary="ECGCLIP's input with a narrow ResNet-34 on the synthetic cohort, to see that everything runs",
        data=DataSpec(sources=(Source(cohort="synthetic_ecg"),), batch_global=8),
        signal=ecgclip(),
        ecg_encoder=ResNet1DSpec(depth=34, width=8, pool_width=64),
        text_encoder=BertSpec(hidden=64, layers=1, heads=2, intermediate=128, tokenizer=TokenizerSpec(vocab_size=500)),
        objective=InfoNCESpec(embedding_dim=64, text_head=HeadSpec(kind="linear")),
        optimizer=OptimizerSpec(peak_lr=1e-3, schedule="cosine", warmup_steps=1),
        run=RunSpec(steps=4, log_every=1, checkpoint_every=2),
    )

    def resized(depth: int) -> Experiment:
        return r34.replace(
            {
                "name": f"ecgclip_r{depth}",
                "summary": f"ECGCLIP's input and ResNet-{depth} with MERL's objective",
                "ecg_encoder.depth": depth,
            }
        )

    demo = demo_sized(
        "ecgclip_demo",
        "ECGCLIP's ResNet-34 and objective in small",
        InfoNCESpec(embedding_dim=128, text_head=HeadSpec(kind="mlp", hidden=128)),
        {
            "ecg_encoder.depth": 34,
            "ecg_encoder.pooling": "attention",
            "ecg_encoder.pool_width": 128,
            "data.statement_keep_probability": 0.4,
        },
    )
    return {"r34": r34, "r18": resized(18), "r50": resized(50), "demo": demo, "smoke": smoke}
