#!/usr/bin/perl
# Turns marked-up books into plain prose on stdout, one document a line, UTF-8.
#
#   prose.pl sword DIR     a Bible module of the SWORD project (zText, OSIS): a chapter a line
#   prose.pl html DIR      a manual of XHTML pages (DocBook): the paragraphs of a page a line
#   prose.pl text FILE     plain text: a line, or a paragraph where blank lines part them, a line
use strict;
use warnings;
use Compress::Zlib ();
use Encode ();

binmode STDOUT, ':raw';
my ($kind, $path) = @ARGV;
my %readers = (sword => \&sword, html => \&html, text => \&text);
die "usage: prose.pl sword|html|text PATH\n" unless @ARGV == 2 && $readers{$kind};
$readers{$kind}->($path);

sub slurp {
    my ($file) = @_;
    open my $handle, '<:raw', $file or die "prose.pl: $file: $!\n";
    local $/;
    return scalar <$handle>;
}

# Prints one document: markup out, entities decoded, space runs to one space.
sub document {
    my ($text) = @_;
    $text =~ s/<[^>]*>//g;
    $text =~ s/&lt;/</g;
    $text =~ s/&gt;/>/g;
    $text =~ s/&quot;/"/g;
    $text =~ s/&(?:#160|#xa0|nbsp);/ /gi;
    $text =~ s/&#x([0-9a-f]+);/Encode::encode('UTF-8', chr hex $1)/gei;
    $text =~ s/&#([0-9]+);/Encode::encode('UTF-8', chr $1)/ge;
    $text =~ s/&amp;/&/g;
    $text =~ s/\xc2\xa0/ /g;
    $text =~ s/\s+/ /g;
    $text =~ s/^ | $//g;
    print "$text\n" if length $text >= 80;
}

# A testament is NAME.bzz, zlib blocks laid out by NAME.bzs as (offset, bytes, unpacked bytes) u32.
sub sword {
    my ($dir) = @_;
    for my $testament ('ot', 'nt') {
        my ($index, $blocks) = (slurp("$dir/$testament.bzs"), slurp("$dir/$testament.bzz"));
        for my $i (0 .. length($index) / 12 - 1) {
            my ($offset, $bytes) = unpack 'V2', substr $index, 12 * $i, 12;
            my $book = Compress::Zlib::uncompress(substr $blocks, $offset, $bytes);
            die "prose.pl: $dir/$testament.bzz: block $i does not unpack\n" unless defined $book;
            $book =~ s/<note\b.*?<\/note>//gs;
            $book =~ s/<title\b.*?<\/title>//gs;
            $book =~ s/<(?:div|l|lg|lb|verse|milestone)\b[^>]*>/ /g;
            document($_) for split /<chapter\b[^>]*\bsID=[^>]*>/, $book;
        }
    }
}

sub html {
    my ($dir) = @_;
    # Release notes grow with every security update of the package; without them the text stays.
    for my $file (grep { !m{/release} } sort glob "$dir/*.html") {
        my $page = slurp($file);
        $page =~ s/<pre\b.*?<\/pre>/ /gs;
        $page =~ s/<table\b.*?<\/table>/ /gs;
        document(join ' ', $page =~ /<p\b[^>]*>(.*?)<\/p>/gs);
    }
}

sub text {
    my ($file) = @_;
    my $text = slurp($file);
    $text =~ s/\r\n?/\n/g;
    my $lines = ($text =~ tr/\n//) || 1;
    my $blank = () = $text =~ /^[ \t]*$/gm;
    my @documents = $blank * 20 >= $lines ? split(/\n[ \t]*\n/, $text) : split(/\n/, $text);
    for (@documents) {
        s/\s+/ /g;
        s/^ | $//g;
        print "$_\n" if length;
    }
}
