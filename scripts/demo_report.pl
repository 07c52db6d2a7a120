#!/usr/bin/perl
# The demo's verdict: both held-out losses, the step at which Switch reached the dense twin's final
# loss, and, where the expected losses apply, whether they were met (exit 1 if not).
#
#   demo_report.pl RUN_DIR [EXPECTED]
#
# RUN_DIR holds MODEL.json (sw-eval --json) and MODEL/metrics.jsonl for MODEL in dense, switch.
use strict;
use warnings;
use JSON::PP ();

my ($dir, $expected) = @ARGV;
die "usage: demo_report.pl RUN_DIR [EXPECTED]\n" unless defined $dir;

sub slurp {
    my ($file) = @_;
    open my $handle, '<', $file or die "demo: $file: $!\n";
    local $/;
    return scalar <$handle>;
}

# Loss in nats per target token: the negative of the negative log perplexity.
my %loss;
for my $model ('dense', 'switch') {
    my $result = JSON::PP::decode_json(slurp("$dir/$model.json"))->{results}[0];
    $loss{$model} = -$result->{neg_log_perplexity};
}
printf "held-out loss (nats per target token, lower is better)\n";
printf "  dense twin          %.4f\n", $loss{dense};
printf "  Switch, 8 experts   %.4f  (%+.4f)\n", $loss{switch}, $loss{switch} - $loss{dense};

my ($last, $reached, $dense_final);
my @curves = map { [grep { $_->{kind} eq 'eval' } map { JSON::PP::decode_json($_) } split /\n/, slurp("$dir/$_/metrics.jsonl")] }
    'dense', 'switch';
$dense_final = -$curves[0][-1]{neg_log_perplexity};
$last        = $curves[0][-1]{step};
for my $point (@{$curves[1]}) {
    next if -$point->{neg_log_perplexity} > $dense_final;
    $reached = $point->{step};
    last;
}
if (defined $reached) {
    printf "Switch reached the dense twin's final loss at step %d of %d: %.2f times fewer steps\n",
        $reached, $last, $last / $reached;
} else {
    print "Switch did not reach the dense twin's final loss in $last steps\n";
}
exit 0 unless defined $expected;

my $failed = 0;
for (split /\n/, slurp($expected)) {
    next if /^\s*(#|$)/;
    my ($model, $want, $tolerance) = split;
    die "demo: $expected: '$_' names no model\n" unless defined $tolerance && exists $loss{$model};
    my $met = abs($loss{$model} - $want) <= $tolerance;
    $failed ||= !$met;
    printf "expected %-6s %.3f +- %.3f: %s\n", $model, $want, $tolerance, $met ? 'met' : 'NOT MET';
}
if ($loss{switch} >= $loss{dense}) {
    print "expected Switch to be better than its dense twin: NOT MET\n";
    $failed = 1;
}
exit $failed;
