#!/usr/bin/perl

# What a reader of this code can rely on, file by file.

use strict;
use warnings;

use Test::More;


use constant {
    COLUMNS => 80,
    LINES_OF_A_FILE => 700,
};

my $tracked = `git ls-files -z 2>/dev/null`;
plan skip_all => 'not a git checkout' if $? != 0 || $tracked eq '';

my @tracked = grep { -f } split /\0/, $tracked;
my @c = grep { m{^(?:src|t)/.*\.[ch]$} } @tracked;
my @perl = grep { m{^t/.*\.(?:pm|t)$} } @tracked;


none('lines fit into 80 columns, without tabs and trailing blanks',
    map { crooked_lines($_) } @c, @perl);

none('files end with one newline',
    grep { slurp($_) !~ /[^\n]\n\z/ } @c, @perl);

none('two blank lines stand between functions',
    map { crowded_functions($_) } grep { m{^src/.*\.c$} } @c);

none('the core knows no nginx',
    grep { m{^src/core/} && slurp($_) =~ /#\s*include\s*[<"]ngx_/ } @c);

none('a source file is what one person can hold in mind',
    grep { m{^src/} && lines($_) > LINES_OF_A_FILE } @c);

none('nothing depends on the place of the checkout', workplaces());

done_testing();


# what is found is told, one a line
sub none {
    my ($name, @found) = @_;

    ok(!@found, $name) or diag(join "\n", @found);
}


sub slurp {
    my ($file) = @_;

    open my $fh, '<:raw', $file or die "$file: $!";
    local $/;
    return scalar <$fh>;
}


sub lines {
    my ($file) = @_;

    return slurp($file) =~ tr/\n//;
}


sub crooked_lines {
    my ($file) = @_;
    my ($number, @crooked) = (0);

    for my $line (split /\n/, slurp($file)) {
        $number++;
        utf8::decode($line);

        push @crooked, "$file:$number"
            if length $line > COLUMNS || $line =~ /\t|\s$/;
    }

    return @crooked;
}


# A function ends with a brace in the first column.  What follows is the end
# of the file, two blank lines, or a line of the preprocessor.
sub crowded_functions {
    my ($file) = @_;
    my $text = slurp($file);
    my @crowded;

    while ($text =~ /^}\n(?!\z|\n\n(?!\n)|\n?#)/mg) {
        my $before = substr $text, 0, pos $text;
        push @crowded, "$file:" . $before =~ tr/\n//;
    }

    return @crowded;
}


# The needles are in pieces, lest this file be found.
sub workplaces {
    my $places = join '|', map { "/$_/" } 'ho' . 'me', 'wo' . 'rk', 'ro' . 'ot';

    return split /\n/, `git grep -nIE '(^|[^[:alnum:]_.}])($places)'`;
}
