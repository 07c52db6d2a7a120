#!/bin/sh
# Tunes the pair of scripts/reproduce/pretrain_pair.sh on tasks and compares the best checkpoint of each with answers
# that need no model.
#
#   scripts/reproduce/finetune.sh OUT [NAME:]TRAIN [NAME:]EVAL [STEPS [BATCH [INPUT_LENGTH]]]
#   scripts/reproduce/finetune.sh OUT --sentiment POSITIVE.txt NEGATIVE.txt
#   scripts/reproduce/finetune.sh OUT --expert-dropout [NAME:]TRAIN [NAME:]EVAL [STEPS [BATCH [INPUT_LENGTH]]]
#
# The second form makes the pairs of text from sentences a line (every tenth line is held out) and goes on as the
# first. The third tunes the Switch model with expert dropout 0.1 and 0.4, three seeds each. Prints rows of a Markdown
# table; runs lie in OUT/tuned, and one that was stopped goes on. MODELS="switch dense", LR,
# EVALS (evaluations of a run) and THREADS may be set.
set -eu
usage() { sed -n '5,7s/^#   /usage: /p' "$0" >&2; exit 2; }
[ $# -ge 3 ] || usage
PATH=$(cd "$(dirname "$0")/../.." && pwd)/${BUILD:-build/release}/bin:$PATH
out=$1
shift
mkdir -p "$out/tuned"

# Lines of "sentiment: TEXT", a tab and the word $2; every tenth goes to the held-out file.
sentences() {
  iconv -f UTF-8 -t UTF-8 "$1" >"$out/tuned/plain" 2>/dev/null || iconv -f ISO-8859-1 -t UTF-8 "$1" >"$out/tuned/plain"
  awk -v label="$2" -v train="$out/tuned/sentiment-train.tsv" -v held="$out/tuned/sentiment-eval.tsv" '
    { gsub(/\t/, " "); print "sentiment: " $0 "\t" label >> (NR % 10 == 0 ? held : train) }' "$out/tuned/plain"
  rm "$out/tuned/plain"
}

mode=tasks
case $1 in
  --sentiment)
    [ $# -eq 3 ] || usage
    rm -f "$out"/tuned/sentiment-*.tsv
    sentences "$2" positive
    sentences "$3" negative
    set -- "$out/tuned/sentiment-train.tsv" "$out/tuned/sentiment-eval.tsv" 400 16 256
    ;;
  --expert-dropout)
    mode=dropout
    shift
    ;;
esac
[ $# -ge 2 ] || usage
train=$1 eval=$2 steps=${3:-400} batch=${4:-16} length=${5:-256}
name=$(basename "${train%%:*}" .tsv)

# What a metric gives, from sw-eval --json on stdin: "accuracy 71.3, f1 66.0".
metrics() {
  perl -MJSON::PP -0777 -ne '
    my $m = decode_json($_)->{results}[0]{metrics};
    print join(", ", map { sprintf "%s %.1f", $_, $m->{$_} } sort keys %$m), "\n"'
}

# The answer that most training examples have, given to everything, and the empty answer.
without_model() {
  examples=$(sw-eval --task "$eval" --cast | wc -l)
  most=$(sw-eval --task "$train" --cast |
    perl -MJSON::PP -ne '$n{decode_json($_)->{target}}++; END { print +(sort { $n{$b} <=> $n{$a} || $a cmp $b } keys %n)[0] }')
  yes "$most" | head -n "$examples" | sw-eval --task "$eval" --predictions-from - --json | metrics
}

# run checkpoint seed expert-dropout
tune() {
  sw-finetune --threads "${THREADS:-0}" --from "$2" --task "$train" --eval-task "$eval" --run "$out/tuned/$1" \
    --lr "${LR:-0.005}" --steps "$steps" --batch "$batch" --input-length "$length" --expert-dropout "$4" --seed "$3" \
    --eval-every $((steps / ${EVALS:-4})) --save-every 100 --best score --keep-last 2 --quiet >/dev/null
}

# The evaluations of a run: metrics (negative log perplexity of the targets).
curve() {
  perl -MJSON::PP -ne '
    my $r = decode_json($_);
    next unless $r->{kind} eq "eval";
    my %m = %$r;
    delete @m{qw(kind step time data neg_log_perplexity tokens sequences dropped_share)};
    push @at, sprintf "%s (%.3f)", join(" ", map { sprintf "%.1f", $m{$_} } sort keys %m), $r->{neg_log_perplexity};
    END { print join(", ", @at), "\n" }' "$out/tuned/$1/metrics.jsonl"
}

if [ $mode = tasks ]; then
  echo "| $name | most frequent answer | $(without_model) | |"
  for model in ${MODELS:-switch dense}; do
    run=$name-$model
    tune "$run" "$out/$model" 1 0.4
    echo "| $name | $model | $(sw-eval "$out/tuned/$run/best" --task "$eval" --json | metrics) | $(curve "$run") |"
  done
else
  for dropout in 0.1 0.4; do
    for seed in 1 2 3; do
      run=$name-dropout$dropout-seed$seed
      tune "$run" "$out/switch" $seed $dropout
      echo "| $name, expert dropout $dropout | seed $seed | $(sw-eval "$out/tuned/$run/best" --task "$eval" --json | metrics) | $(curve "$run") |"
    done
  done
fi
