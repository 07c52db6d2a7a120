#!/usr/bin/perl
# Tables in Markdown from the runs of learning.sh: held-out loss by step, step speed-up over the dense twin of the same
# seed, share of dropped tokens and balance over the last tenth of training.
#
#   learning_table.pl OUT
use strict;
use warnings;
use JSON::PP ();

my ($out) = @ARGV;
die "usage: learning_table.pl OUT\n" unless defined $out;

my %run;    # name => {eval => {step => loss}, train => [rows], last => step}
for my $file (sort glob "$out/*/metrics.jsonl") {
    my ($name) = $file =~ m{([^/]+)/metrics\.jsonl$};
    open my $handle, '<', $file or die "$file: $!\n";
    while (<$handle>) {
        my $row = JSON::PP::decode_json($_);
        if ($row->{kind} eq 'eval') {
            $run{$name}{eval}{$row->{step}} = -$row->{neg_log_perplexity};
            $run{$name}{last} = $row->{step} if $row->{step} > ($run{$name}{last} // 0);
        } elsif ($row->{kind} eq 'train') {
            push @{$run{$name}{train}}, $row;
        }
    }
}
die "$out: no runs with evaluations\n" unless %run;

my @names = sort { order($a) <=> order($b) || $a cmp $b } keys %run;
sub order { my ($n) = @_; return $n =~ /^dense/ ? 0 : $n =~ /^switch(\d+)/ ? $1 : 999 }

my ($last) = sort { $a <=> $b } map { $_->{last} } values %run;
my @steps = grep { $_ <= $last } map { int($last * $_ / 8 + 0.5) } 1 .. 8;
@steps = grep { my $s = $_; !grep { !exists $run{$_}{eval}{$s} } @names } @steps;

print "Held-out loss (nats per target token) by step:\n\n";
print '| run | ', join(' | ', @steps), " |\n|---", '|---:' x @steps, "|\n";
for my $name (@names) {
    print "| $name | ", join(' | ', map { sprintf '%.4f', $run{$name}{eval}{$_} } @steps), " |\n";
}

print "\nAgainst the dense twin of the same seed; dropped and balance (max/mean load of the worst layer) over the last tenth of training:\n\n";
print "| run | final loss | minus dense | step speed-up | dropped | max/mean load | seconds a step (median) |\n";
print "|---|---:|---:|---:|---:|---:|---:|\n";
for my $name (@names) {
    my ($seed) = $name =~ /seed(\d+)/;
    my $final = $run{$name}{eval}{$last};
    my $dense = $run{"dense-seed$seed"};
    my ($gap, $speed) = ('', '');
    if ($name !~ /^dense/ && $dense) {
        my $target = $dense->{eval}{$last};
        $gap = sprintf '%+.4f', $final - $target;
        my ($reached) = grep { $run{$name}{eval}{$_} <= $target } sort { $a <=> $b } keys %{$run{$name}{eval}};
        $speed = defined $reached ? sprintf('%.2f', $last / $reached) : 'not reached';
    }
    my @rows  = @{$run{$name}{train} // []};
    my @tail  = @rows[int(@rows * 0.9) .. $#rows];
    my @times = sort { $a <=> $b } map { $_->{step_seconds} } @rows;
    my $mean  = sub { my ($k) = @_; my $s = 0; $s += $_->{$k} // 0 for @tail; return $s / @tail };
    printf "| %s | %.4f | %s | %s | %.1f %% | %.2f | %.3f |\n", $name, $final, $gap, $speed,
        100 * $mean->('dropped_share'), $mean->('max_over_mean_load'), $times[$#times / 2];
}
