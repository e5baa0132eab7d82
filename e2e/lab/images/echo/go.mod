module herald.test/echo

go 1.25
